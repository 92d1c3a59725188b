"""The same numbers in less time and memory; the method can be understood without this folder.

`routing` chooses: Triton kernels on a GPU (`triton_launch`, `triton_kernels`), PyTorch's fused attention elsewhere
(`plain`). `depthwise` is the convolution of the local terms with a quicker gradient on CPUs. What they compute
stands in `biformer.literal`.
"""
