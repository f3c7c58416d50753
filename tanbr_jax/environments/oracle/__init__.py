"""The best merge weights of every mix, found beforehand."""
