"""GPU to GPU, two processes: our writes, the bulk copy that limits them, and other engines.

settings, work        what is measured, in which order of blocks; arithmetic
content               what is in the blocks, worked out on the GPU, and whether it arrived
process, crew         child processes that answer questions, each with a deadline
engine                what a way to move blocks must offer; ours, nixl, mooncake do
limits, setup_cost, breakdown    the other measurements
measure, report       all of it in order, and as tables
"""
