def prepare(s): return {}
def systems(s): return []
