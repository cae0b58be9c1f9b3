"""What each process of the server is made of: the wiring between configuration and parts.

`parts` makes values and objects from main.cf, once per process; `smtp`, `retrieval` and
`queueing` put services together from them; `one_owner` runs them all in one process, `separated`
in a process each. Only these modules, `tap` and the commands read the configuration.
"""
