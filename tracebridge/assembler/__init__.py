"""From events to spans and back: `Assembler` and `disassemble`, and the law that binds them.

Law 1: `disassemble(assemble(events)) == events` as JSON values, in file order, for any journal.
"""

from tracebridge.assembler.assemble import Assembler, Checkpoint
from tracebridge.assembler.disassemble import disassemble
from tracebridge.assembler.narrow import Narrowing, narrow_event, narrow_span, narrower
from tracebridge.assembler.opening import Place

__all__ = ["Assembler", "Checkpoint", "Narrowing", "Place", "disassemble", "narrow_event", "narrow_span", "narrower"]
