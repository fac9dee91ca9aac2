"""The text form of graphs: `print_graph` and `parse_graph`, each the inverse of the other.

    graph      = "graph" name "(" [input {"," input}] ")" "->" types "{" {line} "}"
    input      = "%"name ":" type
    line       = "source" "@"name ":" type
               | "param" "@"name ":" type ["=" recipe]
               | "%"name {"," "%"name} "=" op "(" [operands] ")" ["{" attributes "}"] ":" types
                 ["at" string] ["from" "(" string {"," string} ")"]
               | "return" operands
    operand    = "%"name | "@"name                      (a value, a parameter)
    recipe     = "@"name | number | op "(" [recipe {"," recipe}] ")" ["{" attributes "}"]
    attribute  = name "=" value
    value      = number | string | "true" | "false" | "none" | dimension | "(" [values] ")"
               | op ["{" attributes "}"] | graph
    type       = dtype "[" [dimension {"," dimension}] "]"      (f32[N,3,224,224])
    dtype      = "f32" | "f16" | "bf16" | "i8" | "i16" | "i32" | "i64" | "u8" | "bool"
    dimension  = integer | [integer] symbol             (7, N, 2N)

A `param` without a recipe is the source tensor of its own name. In a recipe `@name` is a source:
one that a `source` line or a `param` without a recipe declares. Attributes equal to their default
are left out. Lines may be broken anywhere; `#` starts a comment. Names with other characters than
letters, digits, `_` and `.` are quoted: `@"odd name"`.
"""

from lucid.ir.parser import parse_graph, parse_op
from lucid.ir.printer import (
    print_attributes,
    print_graph,
    print_node,
    print_op,
    print_parameter,
    print_recipe,
)

__all__ = [
    "parse_graph",
    "parse_op",
    "print_attributes",
    "print_graph",
    "print_node",
    "print_op",
    "print_parameter",
    "print_recipe",
]
