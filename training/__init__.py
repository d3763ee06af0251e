"""What runs inside SageMaker's containers, and `source`, which packs it into the archive they unpack."""
