"""What annotators and models may see: detection and masking of personal data."""
