"""The Program, the second IR: phases of kernel calls over buffers, and what reads and checks it."""
