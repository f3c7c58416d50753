"""The kernel study: MoE blocks beside their floors and peers."""
