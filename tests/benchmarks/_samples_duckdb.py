"""The SQL side of `samples.py`, a process that imports nothing but DuckDB.

Reads the Parquet files of log, relevance, items and preferences, and writes one sample row an impression. What is the
same for a request, a user's moment, or a category's day is worked out once for it, as our side does.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from _sql import LEVELS, MAX_POSITION, UNIT, ClickCurve, connect, pair_table

USER_BEHAVIOURS = 20
_LEVELS = range(LEVELS)


def run(tables: Path, relevance: Path, preferences: Path, out: Path) -> None:
    """Write `rows.parquet` below `out`."""
    database = connect(out)
    for statement in Script(tables, relevance, preferences).statements(out):
        database.sql(statement)


def listed(form: str, over: Iterable[int], between: str = ", ") -> str:
    """A form with each number in place of `#`."""
    return between.join(form.replace("#", str(number)) for number in over)


def logarithms(prior: list[float]) -> list[str]:
    """Log-probabilities of a prior, bounded below."""
    return [f"ln(greatest({value!r}, 1e-9))" for value in prior]


def earlier(name: str) -> str:
    """The sum of a column over the window `earlier`."""
    return f"coalesce(sum({name}) OVER earlier, 0)"


def window(partition: str, order: str) -> str:
    """The window of all rows before one; rows must be distinct in `partition` and `order`."""
    return (
        f"WINDOW earlier AS (PARTITION BY {partition} ORDER BY {order} "
        "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
    )


def rate(prior: float, clicks: str, examined: str, above: str) -> str:
    """Clicks by examined impressions, smoothed towards the rate above by prior clicks."""
    return f"(({clicks} + {prior!r}) / ({examined} + {prior!r} / {above}))"


def level_rate(prior: list[float], known: str, above: str, level: int) -> str:
    """Clicks by examined impressions of a level, smoothed towards the rate above by the level's prior clicks."""
    clicks = repr(prior[level])
    return f"(({known}.clicks_{level} + {clicks}) / ({known}.examined_{level} + {clicks} / {above}_{level}))"


def above_mean(total: str, count: str, price: str = "row.log_price") -> str:
    """How much dearer a row is than what was clicked, on the log scale."""
    return f"CASE WHEN {count} > 0 AND {price} IS NOT NULL THEN {price} - {total} / {count} ELSE 0 END"


class Script:
    """The statements; each makes a table that later ones read."""

    def __init__(self, tables: Path, relevance: Path, preferences: Path) -> None:
        """Read the parameters."""
        self._tables, self._relevance, self._preferences = tables, relevance, preferences
        self._fitted = json.loads((preferences / "parameters.json").read_text())
        self._config = json.loads((preferences / "manifest.json").read_text())["config"]
        self._curve = ClickCurve(self._fitted)
        self._grid = self._curve.grid
        self._places = range(len(self._grid))

    def statements(self, out: Path) -> Iterator[str]:
        """All of them, in order."""
        yield self._curve.table()
        more = ", pair, expected::DOUBLE AS expected, encoder_expected, source"
        yield pair_table(self._relevance, more)
        yield self._usual_prices()
        yield self._shown()
        yield self._requests()
        yield self._users()
        yield self._own()
        yield self._priors()
        yield self._queries()
        yield self._categories()
        yield self._history("brands", "brand", "ts")
        yield self._history("fields", "category", "ts")
        yield self._history("own_pairs", "pair", "date")
        yield from self._lists()
        yield f"COPY ({self._rows()}) TO '{out}/rows.parquet'"

    def _known(self, kind: str) -> str:
        """What mining knew before each day."""
        return f"read_parquet('{self._preferences}/before/{kind}/*.parquet', hive_partitioning = false)"

    def _posterior(self, source: str, kept: str, weights: bool = False) -> str:
        """Tolerance and sd from l0, l1, .. of `source` (log-likelihood plus log-prior), with the columns `kept`.

        With `weights` also the posterior's p0, p1, ..
        """
        places, grid = self._places, self._grid
        highest = f"SELECT *, greatest({listed('l#', places)}) AS most FROM ({source})"
        weighed = f"SELECT {kept}, {listed('exp(l# - most) AS w#', places)} FROM ({highest})"
        added = f"SELECT *, {listed('w#', places, ' + ')} AS whole FROM ({weighed})"
        shares = f"SELECT {kept}, {listed('w# / whole AS p#', places)} FROM ({added})"
        mean = " + ".join(f"p{place} * {grid[place]!r}" for place in places)
        square = " + ".join(f"p{place} * {grid[place] ** 2!r}" for place in places)
        moments = f"SELECT *, {mean} AS tolerance, {square} AS square FROM ({shares})"
        posterior = f", {listed('p#', places)}" if weights else ""
        deviation = "sqrt(greatest(square - tolerance * tolerance, 0)) AS sd"
        return f"SELECT {kept}{posterior}, tolerance, {deviation} FROM ({moments})"

    def _usual_prices(self) -> str:
        """Median log-price by category; of all items where a category has none."""
        items = f"'{self._tables}/items.parquet'"
        # greatest() passes over a null, which would give an item without a price one of 0.01.
        log_price = "CASE WHEN price IS NOT NULL THEN ln(greatest(price, 0.01)) END"
        priced = f"SELECT coalesce(category, '') AS category, {log_price} AS price FROM {items}"
        return f"""CREATE TEMP TABLE usual AS
            SELECT category, coalesce(median(price), (SELECT median(price) FROM ({priced}))) AS usual
            FROM ({priced}) GROUP BY category"""

    def _shown(self) -> str:
        return f"""CREATE TEMP TABLE shown AS
            SELECT *, CASE WHEN price IS NOT NULL THEN ln(greatest(price, 0.01)) END AS log_price,
                   CASE WHEN price IS NOT NULL THEN ln(greatest(price, 0.01)) - usual END AS relative_price,
                   CASE WHEN list_price IS NOT NULL THEN ln(greatest(list_price, 0.01)) END AS log_list_price,
                   round({self._curve.exam} * {UNIT})::BIGINT AS exam
            FROM (SELECT request_id, user_id, ts, date::DATE AS date, pairs.query, log.item_id, position AS logged,
                         least(position, {MAX_POSITION})::INTEGER AS position, clicked, purchased, policy,
                         coalesce(log.price, items.price) AS price, items.price AS list_price, usual,
                         pair, level, relevance, expected, encoder_expected,
                         source, coalesce(items.category, '') AS category, coalesce(items.brand, '') AS brand
                  FROM read_parquet('{self._tables}/impressions/*/*.parquet', hive_partitioning = true) AS log
                  JOIN pairs ON pairs.query = lower(trim(log.query)) AND pairs.item_id = log.item_id
                  JOIN '{self._tables}/items.parquet' AS items ON items.item_id = log.item_id
                  JOIN usual ON usual.category = coalesce(items.category, ''))"""

    def _requests(self) -> str:
        """Sums of each request: all that is known of user and query is added up from them."""
        by_level = listed(
            "count(*) FILTER (level = #) AS impressions_#, "
            "coalesce(sum(shown.exam) FILTER (level = #), 0)::BIGINT AS examined_#, "
            "count(*) FILTER (level = # AND clicked) AS clicks_#",
            _LEVELS,
        )
        return f"""CREATE TEMP TABLE requests AS
            SELECT user_id, ts, request_id, query, date, {listed("sum(g#)::BIGINT AS g#", self._places)}, {by_level},
                   coalesce(sum(round(log_price * {UNIT})) FILTER (clicked), 0)::BIGINT AS log_price,
                   coalesce(sum(round(relative_price * {UNIT})) FILTER (clicked), 0)::BIGINT AS relative_price,
                   count(log_price) FILTER (clicked) AS priced
            FROM shown JOIN curve USING (position, clicked, relevance)
            GROUP BY user_id, ts, request_id, query, date"""

    def _users(self) -> str:
        """The user before each moment."""
        sums = {name: f"sum({listed(f'{name}_#', _LEVELS, ' + ')})" for name in ("examined", "clicks")}
        moments = f"""SELECT user_id, ts, {listed("sum(g#)::BIGINT AS g#", self._places)}, count(*) AS requests,
                   {sums["examined"]}::BIGINT AS examined, {sums["clicks"]}::BIGINT AS clicks,
                   sum(relative_price)::BIGINT AS relative_price, sum(priced)::BIGINT AS priced
            FROM requests GROUP BY user_id, ts"""
        counts = {"requests": 1, "examined": UNIT, "clicks": 1, "relative_price": UNIT, "priced": 1}
        prior = logarithms(self._fitted["user_prior"])
        history = f"""SELECT user_id, ts,
                   {", ".join(f"{earlier(f'g{i}')} / {UNIT}.0 + {prior[i]} AS l{i}" for i in self._places)},
                   {", ".join(f"{earlier(name)} / {unit}.0 AS {name}" for name, unit in counts.items())}
            FROM ({moments}) {window("user_id", "ts")}"""
        kept = ", ".join(["user_id", "ts", *counts])
        return f"CREATE TEMP TABLE users AS {self._posterior(history, kept, weights=True)}"

    def _own(self) -> str:
        """The user's own part of what is known of a query before each day."""
        names = [f"g{place}" for place in self._places] + list(_query_counts())
        return f"""CREATE TEMP TABLE own AS
            SELECT user_id, query, date, row_number() OVER (PARTITION BY user_id, query ORDER BY date) > 1 AS typed,
                   {", ".join(f"{earlier(name)} AS {name}" for name in names)}
            FROM (SELECT user_id, query, date, {", ".join(f"sum({name})::BIGINT AS {name}" for name in names)}
                  FROM requests GROUP BY user_id, query, date)
            {window("user_id, query", "date")}"""

    def _priors(self) -> str:
        """Tolerance priors of queries by category; those of category null are for all others."""

        def row(category: str, prior: list[float]) -> str:
            values = ", ".join(f"{value} AS prior{place}" for place, value in enumerate(logarithms(prior)))
            return f"SELECT {category}::VARCHAR AS category, {values}"

        by_category = self._fitted["category_query_prior"].items()
        rows = [row("NULL", self._fitted["query_prior"])] + [row(f"'{name}'", prior) for name, prior in by_category]
        return f"CREATE TEMP TABLE priors AS {' UNION ALL '.join(rows)}"

    def _queries(self) -> str:
        """The query before the day of each request, without the request's own user."""
        counts = _query_counts()
        known = {name: "priced_clicks" if name == "priced" else name for name in counts}
        without_own = ", ".join(
            f"greatest(coalesce(known.{known[name]}, 0) - own.{name} / {unit}.0, 0) AS {name}"
            for name, unit in counts.items()
        )
        grid = ", ".join(
            f"coalesce(known.grid_{i:02d}, 0) - own.g{i} / {UNIT}.0 + prior{i} AS l{i}" for i in self._places
        )
        query = f"""SELECT request_id, greatest(coalesce(known.users, 0) - own.typed::INTEGER, 0) AS query_users,
                   {without_own}, {grid}
            FROM requests JOIN own USING (user_id, query, date)
            LEFT JOIN {self._known("query")} AS known USING (query, date)
            LEFT JOIN '{self._preferences}/query_category.parquet' AS named USING (query)
            JOIN priors ON priors.category IS NOT DISTINCT FROM
                CASE WHEN named.category IN (SELECT category FROM priors) THEN named.category END"""
        return f"CREATE TEMP TABLE queries AS {self._posterior(query, ', '.join(['request_id, query_users', *counts]))}"

    def _categories(self) -> str:
        """Categories before each day, with the rates that queries back off to, and the whole log's."""
        examined, clicks = (listed(f"total.{name}_#", _LEVELS, " + ") for name in ("examined", "clicks"))
        overall = f"(({clicks} + 1.0) / ({examined} + 20.0))"
        of_total = listed("(total.clicks_# + 1) / (total.examined_# + 20) AS of_total_#", _LEVELS)
        total = f"""SELECT date, {overall} AS overall, {of_total}
            FROM {self._known("total")} AS total"""
        prior = logarithms(self._fitted["query_prior"])
        prior_clicks = self._fitted["level_prior_clicks"]
        above = ", ".join(f"{level_rate(prior_clicks, 'known', 'of_total', i)} AS above_{i}" for i in _LEVELS)
        category = f"""SELECT known.category, known.date, overall, {above},
                   {listed("known.examined_#", _LEVELS, " + ")} AS examined,
                   {", ".join(f"known.grid_{i:02d} + {prior[i]} AS l{i}" for i in self._places)}
            FROM {self._known("category")} AS known JOIN ({total}) USING (date)"""
        kept = f"category, date, overall, examined, {listed('above_#', _LEVELS)}"
        return f"CREATE TEMP TABLE categories AS {self._posterior(category, kept)}"

    def _history(self, name: str, column: str, order: str) -> str:
        """The user's own earlier rows of the same brand, category or pair."""
        return f"""CREATE TEMP TABLE {name} AS
            SELECT user_id, {column}, {order}, {earlier("exam")} / {UNIT}.0 AS examined, {earlier("clicks")} AS clicks
            FROM (SELECT user_id, {column}, {order}, sum(exam)::BIGINT AS exam, count(*) FILTER (clicked) AS clicks
                  FROM shown GROUP BY user_id, {column}, {order})
            {window(f"user_id, {column}", order)}"""

    def _lists(self) -> Iterator[str]:
        """S_u: of all clicks of a user, in order, those a moment has seen. S_q: the query's list without the user."""
        in_order = "ORDER BY ts, request_id, position"
        yield f"""CREATE TEMP TABLE clicked AS
            SELECT user_id, list(pair {in_order}) AS pairs, list(epoch_us(ts) {in_order}) AS times
            FROM shown WHERE clicked GROUP BY user_id"""
        best_first = "ORDER BY clicked DESC, ts DESC, user_id, item_id"
        parts = {"pair": "pair", "clicked": "clicked::TINYINT", "ts": "epoch_us(ts)", "group": "user_group"}
        yield f"""CREATE TEMP TABLE behaved AS
            SELECT query, date, list(user_id {best_first}) AS users,
                   {", ".join(f'list({value} {best_first}) AS "{name}"' for name, value in parts.items())}
            FROM {self._known("behaviour")} JOIN pairs USING (query, item_id) GROUP BY query, date"""
        most = self._config["behaviours_per_query"]
        others = ", ".join(
            f'CASE WHEN place IS NULL OR place = 0 THEN "{name}"[:{most}] '
            f'ELSE list_concat("{name}"[:place - 1], "{name}"[place + 1:])[:{most}] END AS sq_{name}'
            for name in parts
        )
        recent = f"greatest(users.clicks::BIGINT - {USER_BEHAVIOURS - 1}, 1) : users.clicks::BIGINT"
        yield f"""CREATE TEMP TABLE lists AS
            SELECT request_id, {others}, su_pair, su_ts
            FROM (SELECT request_id, behaved.* EXCLUDE (query, date),
                         list_position(behaved.users, requests.user_id) AS place,
                         clicked.pairs[{recent}] AS su_pair, clicked.times[{recent}] AS su_ts
                  FROM requests JOIN users USING (user_id, ts) LEFT JOIN clicked USING (user_id)
                  LEFT JOIN behaved USING (query, date))"""

    def _rows(self) -> str:
        groups = {
            "numeric": _numeric(self._fitted["rate_prior_clicks"]),
            "tolerance": self._tolerance(),
            "query_preference": _query_preference(self._fitted["level_prior_clicks"]),
        }
        features = ", ".join(
            f'({value})::FLOAT AS "{group}.{name}"' for group, of in groups.items() for name, value in of.items()
        )
        return f"""
            SELECT row.request_id, row.user_id, row.item_id, row.query, row.ts, row.date, logged AS position,
                   row.clicked, purchased, policy, price, row.pair, users.requests::INTEGER AS user_requests,
                   {features}, su_pair, su_ts, sq_pair, sq_clicked, sq_ts, sq_group
            FROM shown AS row
            JOIN users ON users.user_id = row.user_id AND users.ts = row.ts
            JOIN queries ON queries.request_id = row.request_id
            JOIN lists ON lists.request_id = row.request_id
            JOIN categories ON categories.category = row.category AND categories.date = row.date
            JOIN brands ON brands.user_id = row.user_id AND brands.brand = row.brand AND brands.ts = row.ts
            JOIN fields ON fields.user_id = row.user_id AND fields.category = row.category AND fields.ts = row.ts
            JOIN own_pairs
                ON own_pairs.user_id = row.user_id AND own_pairs.pair = row.pair AND own_pairs.date = row.date
            LEFT JOIN {self._known("item")} AS of_item ON of_item.item_id = row.item_id AND of_item.date = row.date
            LEFT JOIN {self._known("pair")} AS of_pair
                ON of_pair.query = row.query AND of_pair.item_id = row.item_id AND of_pair.date = row.date"""

    def _tolerance(self) -> dict[str, str]:
        grid, prior = self._grid, self._fitted["query_prior"]
        centre = sum(weight * threshold for weight, threshold in zip(prior, grid))
        shift = f"(queries.tolerance - {centre!r})"
        threshold = f"least(greatest(users.tolerance + {shift}, {grid[0]!r}), {grid[-1]!r})"
        seen = f"(row.expected - {shift})"
        predictive = " + ".join(f"users.p{i} * {self._curve.acceptance(seen, i)}" for i in self._places)
        return {
            "user_tolerance": "users.tolerance",
            "user_tolerance_sd": "users.sd",
            "user_tolerance_count": "ln(1 + users.examined)",
            "query_tolerance": "queries.tolerance",
            "query_tolerance_sd": "queries.sd",
            "query_tolerance_count": f"ln(1 + {_of_query('examined')})",
            "category_tolerance": "categories.tolerance",
            "category_tolerance_sd": "categories.sd",
            "category_tolerance_count": "ln(1 + categories.examined)",
            "threshold": threshold,
            "above_user": "row.expected - users.tolerance",
            "above_query": "row.expected - queries.tolerance",
            "above_threshold": f"row.expected - {threshold}",
            "predictive_click": f"ln({predictive})",
        }


def _query_counts() -> dict[str, int]:
    """Sums of queries beside the grid, and their units."""
    units = {"impressions": 1, "examined": UNIT, "clicks": 1}
    by_level = {f"{name}_{level}": unit for name, unit in units.items() for level in _LEVELS}
    return by_level | {"log_price": UNIT, "priced": 1}


def _of_query(name: str) -> str:
    return f"({listed(f'queries.{name}_#', _LEVELS, ' + ')})"


def _numeric(prior: dict[str, float]) -> dict[str, str]:
    user = rate(prior["user"], "users.clicks", "users.examined", "overall")
    query = rate(prior["query"], _of_query("clicks"), _of_query("examined"), "overall")
    item = [f"coalesce(of_item.{name}, 0)" for name in ("clicks", "examined")]
    pair = [f"greatest(coalesce(of_pair.{name}, 0) - own_pairs.{name}, 0)" for name in ("clicks", "examined")]
    return {
        "expected": "row.expected",
        "encoder_expected": "encoder_expected",
        "judged": "(source = 'judgment')::INTEGER",
        "taught": "(source = 'teacher')::INTEGER",
        "log_price": "coalesce(row.log_price, 0)",
        "price_known": "(row.log_price IS NOT NULL)::INTEGER",
        "discount": "coalesce(row.log_list_price - row.log_price, 0)",
        "relative_price": "coalesce(row.relative_price, 0)",
        "price_above_query": above_mean("queries.log_price", "queries.priced"),
        "price_above_user": above_mean("users.relative_price", "users.priced", "row.relative_price"),
        "user_rate": f"ln({user})",
        "user_examined": "ln(1 + users.examined)",
        "user_requests": "ln(1 + users.requests)",
        "user_brand_rate": f"ln({rate(prior['user_brand'], 'brands.clicks', 'brands.examined', user)})",
        "user_brand_examined": "ln(1 + brands.examined)",
        "user_category_rate": f"ln({rate(prior['user_category'], 'fields.clicks', 'fields.examined', user)})",
        "user_category_examined": "ln(1 + fields.examined)",
        "query_rate": f"ln({query})",
        "query_examined": f"ln(1 + {_of_query('examined')})",
        "item_rate": f"ln({rate(prior['item'], *item, 'overall')})",
        "item_examined": f"ln(1 + {item[1]})",
        "pair_rate": f"ln({rate(prior['pair'], *pair, query)})",
        "pair_examined": f"ln(1 + {pair[1]})",
    }


def _query_preference(prior_clicks: list[float]) -> dict[str, str]:
    all_above = listed("above_#", _LEVELS, " + ")
    clicks = _of_query("clicks")
    made = {f"level_{i}_rate": f"ln({level_rate(prior_clicks, 'queries', 'above', i)})" for i in _LEVELS}
    made |= {
        f"level_{i}_click_share": f"(queries.clicks_{i} + above_{i} / ({all_above})) / ({clicks} + 1)" for i in _LEVELS
    }
    made |= {f"level_{i}_impressions": f"ln(1 + queries.impressions_{i})" for i in _LEVELS}
    return made | {"query_users": "ln(1 + query_users)", "backed_off": f"({clicks} = 0)::INTEGER"}


if __name__ == "__main__":
    run(*map(Path, sys.argv[1:]))
