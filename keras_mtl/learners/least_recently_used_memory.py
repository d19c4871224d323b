"""An external memory that is written to where it was used least."""

from typing import Any

import keras
from keras import ops

_START = 1e-6
_EPSILON = 1e-8


class LeastRecentlyUsedMemory(keras.layers.Layer):
    """An LSTM controller and its memory: a cell for `keras.layers.RNN`.

    With keys $k_t$ of each of R heads, of the controller's output:

    $$ w^w_t = \\sigma(\\alpha)\\, w^r_{t-1} + (1 - \\sigma(\\alpha))\\, w^{lu}_{t-1},
       \\qquad M_t = M_{t-1} + \\sum_{heads} w^w_t k_t^\\top $$

    $$ w^r_t = \\text{softmax}_i(\\beta \\cos(k_t, M_t(i))), \\qquad
       r_t = \\sum_i w^r_t(i) M_t(i) $$

    $$ w^u_t = \\gamma w^u_{t-1} + \\sum_{heads} (w^r_t + w^w_t) $$

    Head j writes to the j-th least used row, $w^{lu}$; the least used row is set to
    zero before. What is read goes to the output and to the controller's next input.

    Args:
        units: Integer, units of the controller.
        slots: Integer, rows of the memory.
        slot_size: Integer, numbers in a row.
        reads: Integer R.
        usage_decay: Number γ.
        read_strength: Boolean, whether β is of the controller; else it is 1.
        separate_write: Boolean, whether what is written is not the key.
        controller_dtype: Dtype policy of the controller. The memory is in float32.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        units: int,
        slots: int,
        slot_size: int,
        reads: int,
        usage_decay: float,
        read_strength: bool,
        separate_write: bool,
        controller_dtype: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.units = units
        self.slots = slots
        self.slot_size = slot_size
        self.reads = reads
        self.usage_decay = usage_decay
        self.read_strength = read_strength
        self.separate_write = separate_write
        self.controller = keras.layers.LSTMCell(units, dtype=controller_dtype)
        # Keys, what is written, gates of writing and strengths, in one product.
        vectors = 2 if separate_write else 1
        numbers = 2 if read_strength else 1
        self.interface = keras.layers.Dense(
            reads * (vectors * slot_size + numbers), dtype=controller_dtype
        )

        self.output_size = units + reads * slot_size
        self.state_size = [
            self.output_size,
            units,
            (slots, slot_size),
            (reads, slots),
            slots,
        ]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Builds the controller, which reads the inputs but the last, and the reads."""
        read = self.reads * self.slot_size
        self.controller.build((None, input_shape[-1] - 1 + read))
        self.interface.build((None, self.units))

    def call(self, inputs: Any, states: list[Any]) -> tuple[Any, list[Any]]:
        """Returns the output `(B, units + reads slot_size)` and the next states.

        Args:
            inputs: `(B, D + 1)`. The last number is 0 for a step that is not there,
                which leaves all states as they are: the masks of `keras.layers.RNN`
                are for states of one axis.
            states: The output, carry of the controller `(B, units)`, memory
                `(B, slots, slot_size)`, read weights `(B, R, slots)` and usage
                `(B, slots)`.
        """
        there = inputs[:, -1:] > 0
        output, carry, memory, read_weight, usage = states
        dtype = self.controller.compute_dtype
        hidden, read = output[:, : self.units], output[:, self.units :]
        token = ops.cast(inputs[:, :-1], "float32")
        inputs = ops.concatenate([token, read], axis=-1)
        hidden, (_, carry) = self.controller(
            ops.cast(inputs, dtype), [ops.cast(hidden, dtype), ops.cast(carry, dtype)]
        )
        key, written, gate, strength = self._interface(hidden)
        least = self._least_used(usage)  # B, R, slots
        gate = ops.sigmoid(gate)[..., None]
        write_weight = gate * read_weight + (1 - gate) * least
        memory = memory * (1 - least[:, 0, :, None])
        memory = memory + ops.matmul(ops.transpose(write_weight, (0, 2, 1)), written)
        similarity = ops.matmul(_unit(key), ops.transpose(_unit(memory), (0, 2, 1)))
        read_weight = ops.softmax(strength * similarity, axis=-1)
        read = ops.matmul(read_weight, memory)  # B, R, size
        usage = self.usage_decay * usage + ops.sum(read_weight + write_weight, axis=1)
        hidden, carry = ops.cast(hidden, "float32"), ops.cast(carry, "float32")
        flat = ops.reshape(read, (-1, self.reads * self.slot_size))
        output = ops.concatenate([hidden, flat], axis=-1)
        following = [output, carry, memory, read_weight, usage]
        following = [
            ops.where(there if len(new.shape) == 2 else there[..., None], new, old)
            for new, old in zip(following, states, strict=True)
        ]
        return following[0], following

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        """Returns the states of a wiped memory, in float32."""
        first = ops.one_hot(ops.zeros((batch_size,), "int32"), self.slots)
        return [
            ops.zeros((batch_size, self.output_size)),
            ops.zeros((batch_size, self.units)),
            _START * ops.ones((batch_size, self.slots, self.slot_size)),
            ops.repeat(first[:, None], self.reads, axis=1),
            first,
        ]

    def _interface(self, hidden: Any) -> tuple[Any, Any, Any, Any]:
        """Returns keys, what is written `(B, R, size)`, gates and strengths."""
        said = ops.cast(self.interface(hidden), "float32")
        said = ops.reshape(said, (-1, self.reads, said.shape[-1] // self.reads))
        size = self.slot_size
        key = ops.tanh(said[..., :size])
        gate = said[..., -1]
        written = ops.tanh(said[..., size : 2 * size]) if self.separate_write else key
        strength = 1.0
        if self.read_strength:
            # At 10 to start with: 1 can tell no row from another.
            strength = ops.softplus(said[..., -2:-1] + 10.0)
        return key, written, gate, strength

    def _least_used(self, usage: Any) -> Any:
        _, rows = ops.top_k(-ops.stop_gradient(usage), self.reads)
        return ops.one_hot(rows, self.slots)


def _unit(x: Any) -> Any:
    """Returns vectors of length one, or shorter where they are close to zero."""
    return x / ops.sqrt(ops.sum(x * x, axis=-1, keepdims=True) + _EPSILON)
