"""Distillation: a teacher's answers and real ratings become a student. Needs the extra `[distill]`."""
