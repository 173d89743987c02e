"""A URL as a target: one module per scheme, ``from_url`` finds it; addresses, secrets, TLS are shared.

Used by ``targets.resolve``. A scheme's module is imported when it is named, its extras with it.
It must never show or journal a credential.
"""
