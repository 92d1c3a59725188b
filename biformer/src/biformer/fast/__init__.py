"""Implementations that need less time and memory; the method can be understood without this folder.

`routing` uses Triton kernels on a GPU (`triton_launch`, `triton_kernels`) and PyTorch's fused attention elsewhere
(`plain`). `depthwise` is the convolution of the local terms, with a faster gradient on CPUs. `biformer.literal` has the
same equations in their simplest form.
"""
