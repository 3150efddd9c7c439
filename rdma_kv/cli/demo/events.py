"""What a role tells while it works: to a progress bar here, or as lines of JSON to a parent.

stage      what was or is being done, in words     text
ready      model or recording is there           text
listening  decode waits for its peer              port
connected  prefill has its link                   transport, reasons
layer      prefill wrote another layer            done, of
received   decode has the notice of the last one
token      a token was generated                  done, of
result     the role's whole outcome               (its own fields)
failed     the role ended without one             text
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Fields = dict[str, Any]
Emit = Callable[[str, Fields], None]
