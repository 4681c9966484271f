import os

try:
    trail
except NameError:
    trail = []
# Lets whoever looks from outside see which session this interpreter belongs to.
with open("/proc/self/comm", "w") as comm:
    comm.write("@SESSION@")
log = os.open("/mnt/data/log.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
os.write(log, b"@NUMBER@\n")
os.close(log)
trail.append(@NUMBER@)
print(*open("/mnt/data/log.txt").read().split())
print(*trail)
