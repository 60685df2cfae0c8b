"""What architectures are built from: resampling, derivatives, and the handling of tensors and batches."""
