"""Adapters that read file formats with libraries of their own (Pillow). Only ingest carries them."""
