# Tells what the session image holds. Run as a cell of a fresh sandbox.
import importlib.metadata as _m, json as _j, platform as _p, re as _r, subprocess as _s

_bash = _s.run(["/bin/bash", "--version"], capture_output=True, text=True).stdout
_found = {}
for _d in _m.distributions():
    # The first of a name is the one that an import finds.
    _found.setdefault(_d.metadata["Name"], _d.version)
_i = _m.metadata("ipython")
_urls = [_u.partition(", ")[2] for _u in _i.get_all("Project-URL") or [] if _u.lower().startswith("homepage,")]
print(_j.dumps({
    "python": _p.python_version(),
    "bash": (_r.search(r"version ([0-9.]+)", _bash) or ["", ""])[1],
    "packages": sorted(_found.items(), key=lambda one: one[0].lower()),
    "kernel": [_i["Name"], _i["Version"], (_urls or [_i["Home-page"] or ""])[0], _i["Summary"] or ""],
}))
