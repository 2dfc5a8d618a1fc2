"""Attacks on an edited model: how much of an erased concept comes back, by embedding, prompt or weights.

Each attack is a function with a spec, which holds its budget and seed, and a state, which is passed in and returned:

    state = attack(..., spec, steps=20)          # 20 steps of the budget
    arrays, values = state.pack()                # to arrays and JSON values, for any store
    state = attack(..., spec, State.unpack(arrays, values))    # the rest: the same bits as in one go

Randomness is drawn anew from (seed, step), so a state needs no generator. Pipelines are taken loaded and are left as
they were found, weights, hooks and modes, also when an attack raises.
"""
