"""Running, checking and building model packages: the onnxruntime and Pillow adapters, and the ONNX file format."""
