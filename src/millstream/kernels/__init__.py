"""Arrays in, arrays out: loops that NumPy can't say, compiled, without the interpreter lock.

The only home of numba. A kernel imports nothing of Millstream's, holds no state between calls, and breaks ties towards
the lowest index. It is called serially, from threads of our own; numba's own threads are not used, since their default
scheduling layer is not safe to enter from several threads.
"""
