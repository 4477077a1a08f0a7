"""LiteRT for litert.kt: reads a model and requests from stdin, and answers on stdout.

Big-endian, as Java's DataOutputStream writes. This is a program, not a module of the tests.
"""

import struct
import sys
from typing import BinaryIO

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    def number(form: str = ">i") -> int:
        raw = requests.read(struct.calcsize(form))
        if not raw:
            raise EOFError
        return int(struct.unpack(form, raw)[0])

    def word() -> str:
        return requests.read(number(">H")).decode()

    threads = number()
    interpreter = Interpreter(model_content=requests.read(number()), num_threads=max(threads, 1))
    while True:
        try:
            verb, signature, output = word(), word(), word()
        except EOFError:
            return
        runner = interpreter.get_signature_runner(signature)
        if verb == "size":
            details = runner.get_output_details()[output]
            size = int(np.prod(details["shape"])) * np.dtype(details["dtype"]).itemsize
            answers.write(struct.pack(">i", size))
        else:
            name, content = word(), requests.read(number())
            dtype = runner.get_input_details()[name]["dtype"]
            values = np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).astype(dtype)
            shape = (1, -1) if dtype == np.float32 else (-1,)
            try:
                found = runner(**{name: values.reshape(shape)})[output].tobytes()
                answers.write(struct.pack(">i", len(found)) + found)
            except RuntimeError as error:
                text = str(error).encode()
                answers.write(struct.pack(">i", -len(text)) + text)
        answers.flush()


# Nothing else may write where the answers go.
answers, sys.stdout = sys.stdout.buffer, sys.stderr
serve(sys.stdin.buffer, answers)
