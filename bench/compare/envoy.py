def prepare(s): return {}
def systems(s): return []
def report(r): return None
