"""The formulas of docstrings and pages, Python, as MathML: it needs no scripts."""

import ast
import io
import tokenize
from html import escape

GREEK = {"alpha", "beta", "eta", "gamma", "tau"}
SAME = {"maximum": "max", "minimum": "min"}
# How tightly what an operator makes is bound: what is looser than its place asks for
# gets parentheses.
COMPARISON, SUM, BIG_SUM, PRODUCT, FACTOR, POWER, ATOM = range(7)
OPERATORS = {
    ast.Add: ("+", SUM, SUM, SUM),
    ast.Sub: ("&minus;", SUM, SUM, BIG_SUM),
    ast.Mult: ("&sdot;", PRODUCT, PRODUCT, FACTOR),
    ast.MatMult: ("&sdot;", PRODUCT, PRODUCT, FACTOR),
    ast.Mod: ("mod", PRODUCT, FACTOR, FACTOR),
}
COMPARISONS = {
    ast.Eq: "=",
    ast.NotEq: "&ne;",
    ast.Gt: "&gt;",
    ast.GtE: "&ge;",
    ast.Lt: "&lt;",
    ast.LtE: "&le;",
}


def to_html(formula: str) -> str:
    """Returns the block of a page that shows a formula."""
    return f'<div class="formula">{to_mathml(formula)}</div>'


def to_mathml(formula: str) -> str:
    """Returns the `math` element for the lines of a formula, one row for each.

    Args:
        formula: Python, except that a function can be defined by `f(x) = ...`.
            Comments become text.
    """
    comments = _comments(formula)
    # As comparisons, `f(x) = y` and `y = f(x)` are the same to the parser.
    tree = ast.parse(formula.replace(" = ", " == "))
    rows = [row for statement in tree.body for row in _rows(statement, comments)]
    # What is left are the comments on lines of their own.
    rows += [(line, f"<mtext>{text}</mtext>", "") for line, text in comments.items()]
    cells = (f"<mtr>{_cell(math)}{_cell(note)}</mtr>" for _, math, note in sorted(rows))
    table = f'<mtable displaystyle="true">{"".join(cells)}</mtable>'
    return f'<math display="block">{table}</math>'


def _comments(formula):
    tokens = tokenize.generate_tokens(io.StringIO(formula).readline)
    return {
        token.start[0]: escape(token.string.lstrip("# ").replace("`", ""))
        for token in tokens
        if token.type == tokenize.COMMENT
    }


def _cell(content):
    return f"<mtd>{content}</mtd>"


def _rows(statement, comments):
    """Yields line, formula and note; takes the notes from the comments."""
    match statement:
        case ast.If(test, [yes], [no]):
            yield yes.lineno, _math(yes.value), f"<mtext>if&nbsp;</mtext>{_math(test)}"
            yield no.lineno, _math(no.value), "<mtext>otherwise</mtext>"
        case ast.Expr(value):
            note = comments.pop(statement.lineno, "")
            yield statement.lineno, _math(value), note and f"<mtext>{note}</mtext>"
        case _:
            raise ValueError(f"Not a formula: {ast.unparse(statement)}")


def _math(node, place=COMPARISON):
    """Returns the elements for an expression, in parentheses where its place asks."""
    elements, binding = _elements(node)
    return _row(elements if binding >= place else _parentheses(elements))


def _row(elements):
    return f"<mrow>{elements}</mrow>"


def _parentheses(elements):
    return f"<mo>(</mo>{elements}<mo>)</mo>"


def _operator(text):
    return f"<mo>{text}</mo>"


def _elements(node):
    match node:
        case ast.Name(name):
            return _name(name), ATOM
        case ast.Constant(value):
            return _number(value), ATOM
        case ast.UnaryOp(ast.USub(), operand):
            return _operator("&minus;") + _math(operand, BIG_SUM), PRODUCT
        case ast.BinOp(left, ast.Div(), right):
            return f"<mfrac>{_math(left)}{_math(right)}</mfrac>", POWER
        case ast.BinOp(left, ast.Pow(), right):
            return f"<msup>{_math(left, ATOM)}{_math(right)}</msup>", POWER
        case ast.BinOp(left, operator, right):
            sign, binding, of_left, of_right = OPERATORS[type(operator)]
            left, right = _math(left, of_left), _math(right, of_right)
            return left + _operator(sign) + right, binding
        case ast.Compare(left, [operator], [right]):
            sign = _operator(COMPARISONS[type(operator)])
            return _math(left) + sign + _math(right), COMPARISON
        case ast.Subscript(value, ast.Tuple(indices)):
            indices = _row(_list(indices))
            return f"<msub>{_math(value, ATOM)}{indices}</msub>", ATOM
        case ast.Subscript(value, index):
            return f"<msub>{_math(value, ATOM)}{_math(index)}</msub>", ATOM
        case ast.Slice(None, None, None):
            return _operator(":"), ATOM
        case ast.Tuple(items):
            return _parentheses(_list(items)), ATOM
        case ast.Call(ast.Name("sum"), [ast.GeneratorExp() as terms]):
            return _sum_of(terms), BIG_SUM
        case ast.Call(ast.Name("sum"), [summand, *axes], keywords):
            below = f"<munder><mo>&sum;</mo>{_row(_list([*axes, *keywords]))}</munder>"
            return below + _math(summand, BIG_SUM), BIG_SUM
        case ast.Call(ast.Name("abs"), [argument]):
            return f"<mo>|</mo>{_math(argument)}<mo>|</mo>", ATOM
        case ast.Call(function, arguments, keywords):
            inside = _row(_parentheses(_list([*arguments, *keywords])))
            return _math(function) + _operator("&ApplyFunction;") + inside, ATOM
        case ast.keyword(name, value):
            return _name(name) + _operator("=") + _math(value), COMPARISON
        case _:
            raise ValueError(f"Not in a formula so far: {ast.unparse(node)}")


def _list(nodes):
    return _operator(",").join(map(_math, nodes))


def _sum_of(terms):
    match terms.generators:
        case [ast.comprehension(index, ast.Call(ast.Name("range"), [first, end]), [])]:
            below = _math(index) + _operator("=") + _math(first)
            last = ast.BinOp(end, ast.Sub(), ast.Constant(1))
            match end:
                case ast.BinOp(count, ast.Add(), ast.Constant(1)):
                    last = count
            limits = _row(below) + _math(last)
            sign = f"<munderover><mo>&sum;</mo>{limits}</munderover>"
            return sign + _math(terms.elt, BIG_SUM)
    raise ValueError(f"Not a sum over a range: {ast.unparse(terms)}")


def _name(name):
    """Returns a name, of which an index is what follows one letter: `p_y` and `t1`."""
    if name == "inf":
        return "<mi>&infin;</mi>"
    if name in GREEK:
        return f"<mi>&{name};</mi>"
    head, _, index = name.partition("_")
    if index and (len(head) == 1 or name.startswith("log_t")):
        return f"<msub>{_name(head)}{_name(index)}</msub>"
    if len(name) == 2 and name[1].isdigit():
        return f"<msub><mi>{name[0]}</mi><mn>{name[1]}</mn></msub>"
    return f"<mi>{SAME.get(name, name)}</mi>"


def _number(value):
    digits, _, exponent = str(value).partition("e")
    if not exponent:
        return f"<mn>{digits}</mn>"
    ten = f"<msup><mn>10</mn><mn>{int(exponent)}</mn></msup>"
    return ten if digits == "1" else f"<mn>{digits}</mn><mo>&sdot;</mo>{ten}"
