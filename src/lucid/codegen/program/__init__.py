"""The Program, the second IR: phases of kernel calls over buffers, with its verifier and
interpreter.
"""
