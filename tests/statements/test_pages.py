"""What a page shows stays text, letter by letter, in Markdown and in HTML."""

from dp_assets.statements.pages import Grid, html_page, markdown_page


def test_what_a_cell_holds_cannot_become_markup() -> None:
    hostile = [Grid(("a",), (("<script>x</script> | b\n| c",),))]
    assert "<script" not in markdown_page(hostile) + html_page("<script>", hostile)
    assert len(markdown_page(hostile).splitlines()) == 3


def test_a_cell_is_shown_letter_by_letter() -> None:
    page = markdown_page([Grid(("a_b",), (("__bold__ *x* ~~y~~ `z` [l](k) &#8238; \\_",),))])
    assert page.splitlines()[0] == "| a_b |"
    assert page.splitlines()[2] == r"| \_\_bold\_\_ \*x\* \~\~y\~\~ \`z\` \[l\](k) &amp;#8238; \\\_ |"
