import session
s=session.Session()
r=s.run('''
import sys, os
fd=os.open('/proc/self/smaps_rollup',os.O_RDONLY)
def dirty():
    for l in os.pread(fd,4096,0).split(b"\\n"):
        if l.startswith(b'Private_Dirty'): return int(l.split()[1])
stack=[];out=[]
def prof(frame,event,arg):
    if event=='call': stack.append(dirty())
    elif event=='c_call': stack.append(dirty())
    elif event in('return','c_return','c_exception') and stack:
        d=dirty()-stack.pop()
        if d>400: out.append((len(stack),d,(arg.__name__ if event[0]=='c' else '')+' in '+frame.f_code.co_qualname,frame.f_code.co_filename[-40:],frame.f_lineno))
dirty()
try: 1/0
except Exception as e:
    t=get_ipython().InteractiveTB
    i=sys.exc_info()
    sys.setprofile(prof)
    t.structured_traceback(*i)
    sys.setprofile(None)
for o in out: print(*o)
''')
print(r.stdout, r.error and r.error['traceback'])
