"""The adapters: one module a service, `settings` that reads the environment, `wiring` where ports meet adapters."""
