import session, time
def mem(pid):
    d={l.split(':')[0]:int(l.split()[1]) for l in open(f'/proc/{pid}/smaps_rollup') if 'kB' in l}
    return d['Private_Dirty']+d['Private_Clean']
for code in ['1+1','print(1)','1/0','import pandas as pd; pd.DataFrame({"a":[1]})','import matplotlib.pyplot as plt\nplt.plot([1,2])','await __import__("asyncio").sleep(0)','import numpy as np; np.arange(10).sum()','[str(n) for n in range(200)]','def f(): return f()\nf()']:
    s=session.Session()
    a=mem(s.pid); t0=time.perf_counter(); s.run(code); t0=time.perf_counter()-t0; b=mem(s.pid)
    t=[]
    for _ in range(200 if 'plt' not in code and 'f()' not in code else 10):
        t1=time.perf_counter(); s.run(code); t.append(time.perf_counter()-t1)
    t.sort(); print(repr(code[:30]), f'ready {a} first {b} kB, {t0*1e3:.1f} ms; then p50 {t[len(t)//2]*1e3:.3f} p99 {t[-1-len(t)//100]*1e3:.3f} ms; after {mem(s.pid)} kB')
    s.close()
