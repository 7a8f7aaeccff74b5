"""How fast is the simulator, against a bare SimPy timeout in the same process, and against its peers?"""
