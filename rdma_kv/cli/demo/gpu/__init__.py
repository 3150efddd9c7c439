"""The demo in GPU memory: a large model prefills on one GPU, another GPU generates.

memory, timeline        arithmetic
paging, checksums       pools of torch tensors, and what is in them
model                   the Llama, its weights drawn on the GPU
prefill, decode         the roles; the reference is in decode
verdict, report         what came out, and how it is shown

All of it runs on the CPU, too (`--device rehearsal`): then only CUDA itself is missing.
"""
