"""The doctor: looks at what delivery needs, from the configuration to a span that is written and read back."""

from tracebridge.doctor.examination import Diagnosis, Examination, examine_sink
from tracebridge.doctor.local import examine_local

__all__ = ["Diagnosis", "Examination", "examine_local", "examine_sink"]
