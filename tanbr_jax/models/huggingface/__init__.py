"""Checkpoint folders of the Hugging Face format: config.json, *.safetensors."""
