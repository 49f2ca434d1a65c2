"""Ask a running server to rank candidates, then report which item was clicked.

    prectr serve tutorial/ws/rankers/prectr-v2      # in another terminal
    python examples/call_server.py [URL]

The second request comes after the click: the user's history holds it, and the scores move.
"""

import sys

from prectr.serving.client import Client, shown

USER, QUERY, CANDIDATES = "someone-new", "nokia phone", ["i1", "i4", "i16"]


def main(url: str) -> None:
    """Score, send one list with a click, and score again."""
    with Client(url) as client:
        first = client.score(USER, QUERY, CANDIDATES)
        print_list("before the click", first)
        client.tell(shown(first, USER, QUERY, clicked={first.results[-1].item_id}))
        print_list("after the click on the last item", client.score(USER, QUERY, CANDIDATES))


def print_list(title: str, response) -> None:
    """One line an item, the best first."""
    print(f"{title}: model {response.model}, user known: {response.user_known}")
    for entry in response.results:
        print(f"  {entry.rank}  {entry.item_id:4}  {entry.title:28}  click probability {entry.click_probability:.4f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
