"""What the scikit-learn image adds to the serving toolkit: an application made of the four functions of the user's module.

Its Python package is not published; this is the same assembly of the toolkit's public parts, made at the first request.
"""

import importlib

from sagemaker_containers.beta.framework import env, transformer, worker

_application = None


def main(environ, start_response):
    """The WSGI application that SAGEMAKER_SERVING_MODULE names."""
    global _application
    if _application is None:
        name = env.ServingEnv().module_name
        module = importlib.import_module(name)
        functions = {part: getattr(module, part) for part in ("model_fn", "input_fn", "predict_fn", "output_fn")}
        answering = transformer.Transformer(**functions)
        answering.initialize()
        _application = worker.Worker(transform_fn=answering.transform, module_name=name)
    return _application(environ, start_response)
