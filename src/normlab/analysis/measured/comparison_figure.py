def sheet(found):
    raise NotImplementedError
