"""The computations behind `ops`, in the form that suits each backend."""
