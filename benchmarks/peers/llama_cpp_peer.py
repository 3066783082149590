"""llama.cpp through llama-cpp-python: sequences that share their user's prefix in the KV cache."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import llama_cpp
import numpy as np
from common import Prompts, common_length, main

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_CONTEXT = 2048  # tokens of a sequence
SEQUENCES = {"score": 1, "reason": 16}  # beside the prefix
FLASH_ATTENTION = 1


class LlamaCpp:
    """The C API: the high-level `Llama` class knows one sequence only."""

    name = "llama_cpp"

    def __init__(self, args: argparse.Namespace) -> None:
        llama_cpp.llama_log_set(_SILENT, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            str(args.model).encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise SystemExit(f"{args.model}: llama.cpp cannot load it; it must be a GGUF file")
        self._sequences = SEQUENCES[args.mode]
        self._context = llama_cpp.llama_init_from_model(
            self._model, _context_params(args, self._sequences + 1)
        )
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self._batch = llama_cpp.llama_batch_init(MAX_CONTEXT * self._sequences, 0, 1)
        self.version = llama_cpp.__version__
        self.dtype = _file_type(self._model)
        self.threads = args.threads
        self.settings = {
            "sequences": self._sequences,
            "flash_attention": bool(FLASH_ATTENTION),
            "kv_unified": True,
        }
        self.prompt_tokens_computed: int | None = None
        self.prompt_tokens_reused: int | None = None

    def encode(self, text: str) -> list[int]:
        """See `common.Peer`."""
        raw = text.encode()
        tokens = (llama_cpp.llama_token * (len(raw) + 8))()
        count = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), tokens, len(tokens), False, True)
        return list(tokens[:count])

    def decode(self, tokens: Sequence[int]) -> str:
        """See `common.Peer`."""
        given = (llama_cpp.llama_token * len(tokens))(*tokens)
        buffer = ctypes.create_string_buffer(64 * len(tokens) + 64)
        count = llama_cpp.llama_detokenize(self._vocab, given, len(tokens), buffer, len(buffer), False, True)
        return buffer.raw[:count].decode(errors="replace")

    def read_labels(self, users: list[Prompts], labels: list[int]) -> list[NDArray[np.float64]]:
        """See `common.Peer`."""
        found = []
        for prompts in users:
            logits = np.empty((len(prompts), len(labels)))
            shared = self._prefill_prefix(prompts)
            for start in range(0, len(prompts), self._sequences):
                rows = self._prefill(prompts[start : start + self._sequences], shared)
                logits[start : start + len(rows)] = [row[labels] for row in rows]
                self._forget(len(rows))
            found.append(logits)
        return found

    def reason(
        self, users: list[Prompts], num_tokens: int, answer: list[int], labels: list[int]
    ) -> tuple[list[Prompts], list[NDArray[np.float64]]]:
        """See `common.Peer`; the answer is read behind the reasoning, which is still there."""
        written: list[Prompts] = []
        found = []
        for prompts in users:
            shared = self._prefill_prefix(prompts)
            tokens: Prompts = []
            rows = []
            for start in range(0, len(prompts), self._sequences):
                some = prompts[start : start + self._sequences]
                lengths = [len(prompt) for prompt in some]
                tokens += self._continue(self._prefill(some, shared), lengths, num_tokens)
                ends = [length + num_tokens - 1 for length in lengths]
                rest = [reasoning[-1:] + answer for reasoning in tokens[start:]]
                rows += [row[labels] for row in self._append(rest, ends)]
                self._forget(len(some))
            written.append(tokens)
            found.append(np.array(rows, dtype=np.float64))
        return written, found

    def _prefill_prefix(self, prompts: Prompts) -> int:
        """Compute what all share, in sequence 0; return how much that is."""
        shared = common_length(prompts)
        llama_cpp.llama_memory_clear(self._memory, False)
        if shared:
            self._run([(token, i, 0, False) for i, token in enumerate(prompts[0][:shared])])
        computed = shared + sum(len(prompt) - shared for prompt in prompts)
        self.prompt_tokens_computed = (self.prompt_tokens_computed or 0) + computed
        self.prompt_tokens_reused = (self.prompt_tokens_reused or 0) + shared * (len(prompts) - 1)
        return shared

    def _prefill(self, prompts: Prompts, shared: int) -> list[NDArray[np.float32]]:
        """Compute prompts behind the prefix, in sequences 1, 2, ...; return the logits behind each."""
        for sequence in range(1, len(prompts) + 1):
            llama_cpp.llama_memory_seq_cp(self._memory, 0, sequence, 0, -1)
        return self._append([prompt[shared:] for prompt in prompts], [shared] * len(prompts))

    def _append(self, tokens: Prompts, positions: list[int]) -> list[NDArray[np.float32]]:
        """Compute tokens in sequences 1, 2, ... from these positions on; return the logits behind each."""
        rows = [
            (token, start + i, sequence, i == len(new) - 1)
            for sequence, (new, start) in enumerate(zip(tokens, positions, strict=True), start=1)
            for i, token in enumerate(new)
        ]
        return self._run(rows)

    def _continue(self, rows: list[NDArray[np.float32]], lengths: list[int], num_tokens: int) -> Prompts:
        written = [[int(row.argmax())] for row in rows]
        for step in range(num_tokens - 1):
            rows = self._append([tokens[-1:] for tokens in written], [length + step for length in lengths])
            for tokens, row in zip(written, rows, strict=True):
                tokens.append(int(row.argmax()))
        return written

    def _forget(self, count: int) -> None:
        for sequence in range(1, count + 1):
            llama_cpp.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def _run(self, rows: list[tuple[int, int, int, bool]]) -> list[NDArray[np.float32]]:
        """Compute (token, position, sequence, wanted) rows; return the logits of the wanted ones."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.logits[i] = token, position, wanted
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise SystemExit(f"llama_decode failed with status {status}; is --kv-cache-mib too small?")
        wanted_rows = (i for i, row in enumerate(rows) if row[3])
        return [
            np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, i), (self._vocab_size,))
            for i in wanted_rows
        ]


def _context_params(args: argparse.Namespace, sequences: int) -> llama_cpp.llama_context_params:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = MAX_CONTEXT * sequences
    params.n_batch = MAX_CONTEXT * sequences
    params.n_ubatch = 512
    params.n_seq_max = sequences
    params.n_threads = params.n_threads_batch = args.threads
    params.kv_unified = True
    params.flash_attn_type = FLASH_ATTENTION
    return params


def _file_type(model: object) -> str:
    """Return the matrices' type as the file's description tells it, e.g. "BF16" or "Q4_1"."""
    buffer = ctypes.create_string_buffer(128)
    llama_cpp.llama_model_desc(model, buffer, len(buffer))
    return buffer.value.decode().split()[-1].lower()


@llama_cpp.llama_log_callback
def _SILENT(level: int, text: bytes, data: object) -> None:  # noqa: N802  (a C callback)
    """Drop llama.cpp's log."""


if __name__ == "__main__":
    main("llama.cpp", LlamaCpp)
