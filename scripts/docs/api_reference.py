"""The API reference as Markdown, one page per module, from signatures and docstrings.

griffe reads the sources without importing them, so no page depends on what is installed. The
docstrings are Markdown with Google's sections. Pages hold MyST's directives and are not committed.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import griffe

_INDEX = "index"


def write_pages(sources: Path, folder: Path) -> None:
    """Write the pages of the package `normlab` in `sources`, and an index; remove old pages.

    A page that would not change is not touched, so that Sphinx does not read it again.
    """
    package = griffe.load("normlab", search_paths=[sources], docstring_parser="google")
    assert isinstance(package, griffe.Module)
    modules = [module for module in walk_modules(package) if module.docstring]
    pages = {module.path: module_page(module) for module in modules}
    pages[_INDEX] = index_page(modules)
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.md"):
        # A page of a module that is gone would stay in the site and its search.
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def walk_modules(module: griffe.Module) -> Iterator[griffe.Module]:
    """The module and all below it, a package before its modules."""
    yield module
    for child in sorted(module.modules.values(), key=lambda child: child.name):
        if isinstance(child, griffe.Module) and child.is_public:
            yield from walk_modules(child)


def index_page(modules: list[griffe.Module]) -> str:
    """All modules with the first paragraph of their docstring, and the navigation."""
    lines = []
    for module in modules:
        summary = " ".join(docstring_text(module).split("\n\n")[0].split())
        lines.append(f"- [`{module.path}`]({module.path}.md): {summary}")
    names = "\n".join(module.path for module in modules)
    return (
        "# API reference\n\nEvery public class and function, from the docstrings in `src/`. "
        "[Architecture](../architecture.md) says how they work together.\n\n"
        + "\n".join(lines)
        + "\n\n"
        f"```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    )


def module_page(module: griffe.Module) -> str:
    """The page of one module."""
    parts = [f"# {module.path}", f"````{{py:module}} {module.path}\n````", docstring_text(module)]
    for member in module.members.values():
        if not is_documented(member):
            continue
        if isinstance(member, griffe.Class):
            parts.append(class_part(member))
        elif isinstance(member, griffe.Function):
            parts.append(directive("function", signature(member), docstring_text(member)))
    return "\n\n".join(parts) + "\n"


def is_documented(member: griffe.Object | griffe.Alias) -> bool:
    """Whether it is public, has a docstring, and is defined here."""
    return not member.is_alias and member.is_public and member.docstring is not None


def class_part(member: griffe.Class) -> str:
    """A class with its public methods."""
    head = f"{member.name}({', '.join(map(parameter_text, member.parameters))})"
    bases = ", ".join(f"`{base}`" for base in member.bases)
    body = [*([f"Bases: {bases}"] if bases else []), docstring_text(member)]
    for method in member.members.values():
        if not is_documented(method):
            continue
        if isinstance(method, griffe.Function):
            body.append(directive("method", signature(method), docstring_text(method)))
        elif isinstance(method, griffe.Attribute) and "property" in method.labels:
            body.append(directive("property", method.name, docstring_text(method)))
    return directive("class", head, "\n\n".join(body), fence="`" * 6)


def signature(function: griffe.Function) -> str:
    """`name(parameters) -> type`, without self; the module is that of the page."""
    names = [p for p in function.parameters if p.name not in ("self", "cls")]
    returns = f" -> {annotation_text(function.returns)}" if function.returns is not None else ""
    return f"{function.name}({', '.join(map(parameter_text, names))}){returns}"


def parameter_text(parameter: griffe.Parameter) -> str:
    """One parameter as Python writes it."""
    stars = {
        griffe.ParameterKind.var_positional: "*",
        griffe.ParameterKind.var_keyword: "**",
    }.get(parameter.kind or griffe.ParameterKind.positional_or_keyword, "")
    annotation = ""
    if parameter.annotation is not None:
        annotation = f": {annotation_text(parameter.annotation)}"
    default = f" = {parameter.default}" if parameter.default is not None and not stars else ""
    return f"{stars}{parameter.name}{annotation}{default}"


def annotation_text(annotation: str | griffe.Expr) -> str:
    """A type as Python writes it, its names with `~` and their complete path.

    Sphinx shows `~package.module.Name` as `Name`, and two modules may have that name.
    """
    if isinstance(annotation, str):
        return annotation
    parts = list(annotation.iterate(flat=True))
    # `nn.Module` is three parts, which stay as they are.
    dotted = {n + step for n, part in enumerate(parts) if part == "." for step in (-1, 1)}
    words = []
    for n, part in enumerate(parts):
        is_name = isinstance(part, griffe.ExprName) and n not in dotted
        is_imported = is_name and "." in part.canonical_path
        words.append(f"~{part.canonical_path}" if is_imported else str(part))
    return "".join(words)


def directive(kind: str, head: str, body: str, fence: str = "`" * 5) -> str:
    """MyST's directive of a Python object; one inside another needs the shorter fence."""
    return f"{fence}{{py:{kind}}} {' '.join(head.split())}\n\n{body}\n{fence}"


def docstring_text(member: griffe.Object | griffe.Alias) -> str:
    """The docstring as Markdown: its text, then its sections as lists."""
    if member.docstring is None:
        return ""
    parts = []
    for section in member.docstring.parsed:
        if isinstance(section, griffe.DocstringSectionText):
            parts.append(escape_html(section.value))
        elif isinstance(section, griffe.DocstringSectionAdmonition):
            parts.append(escape_html(f"{section.title}: {section.value.description}"))
        elif isinstance(section.value, list):
            items = [f"- {item_text(item)}" for item in section.value]
            parts.append(f"{section.kind.value.capitalize()}:\n\n" + "\n".join(items))
    return "\n\n".join(parts)


def item_text(item: griffe.DocstringElement) -> str:
    """A parameter, attribute or error with its description."""
    name = getattr(item, "name", None) or item.annotation
    return escape_html(f"`{name}`: {' '.join(item.description.split())}")


def escape_html(text: str) -> str:
    """The text with `<` outside of code escaped: `<run>` is no element."""
    # The group makes `split` return the code too, at the odd places, where it stays as it is.
    code = re.compile(r"(`+[^`]+`+|^    .*$)", re.MULTILINE)
    parts = code.split(text)
    return "".join(
        part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts)
    )
