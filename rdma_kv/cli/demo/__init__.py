"""The main job, end to end: a prompt computed in one process, its tokens generated in another.

settings, paging, recording   NumPy only
model                         the one file that needs torch and transformers
prefill, decode, reference    the roles; each tells what it does through `events`
child, conductor              roles as child processes, and who watches over them
verdict, report               what came out, and how it is shown
"""
