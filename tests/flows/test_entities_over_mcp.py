"""Every kind of record, listed, searched and fetched through MCP, checked against the simulated account itself."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

KINDS = {
    "task": ("tasks", "tasks"),
    "activity": ("activities", "activities"),
    "estimate": ("estimates", "estimates"),
    "invoice": ("invoices", "invoices"),
    "payment": ("payments", "payments"),
    "product": ("products", "products"),
    "work_order": ("work_orders", "workorders"),
    "material_order": ("material_orders", "materialorders"),
    "budget": ("budgets", "budgets"),
    "attachment": ("attachments", "files"),
    "contact": ("contacts", "contacts"),
}
"""Tool name's singular -> its plural, and the simulated account's own name."""

WORDS = {
    "tasks": lambda row: row["title"],
    "activities": lambda row: row["note"].split()[0],
    "estimates": lambda row: row["number"],
    "invoices": lambda row: row["number"],
    "payments": lambda row: row["reference"],
    "products": lambda row: row["name"],
    "work_orders": lambda row: row["name"],
    "material_orders": lambda row: row["number"],
    "budgets": lambda row: row["number"],
    "attachments": lambda row: row["filename"],
    "contacts": lambda row: row["display_name"],
}
"""What a record of the kind is found by."""


def money(value: Any) -> float:
    return float(value or 0)


async def ids(agent: Any, tool: str, **arguments: Any) -> set[str]:
    """Of every page, each record once and as many as are counted."""
    pages = await agent.pages(tool, size=200, verbosity="summary", **arguments)
    found = [jnid for page in pages for jnid in page.ids]
    assert len(found) == len(set(found)) == pages[0].data["count"], (tool, arguments)
    assert all(page.data.get("complete") is not False for page in pages), (tool, arguments)
    return set(found)


async def test_every_kind_is_listed_searched_and_fetched(world: Any, agent: Any) -> None:
    for one, (many, kind) in KINDS.items():
        there = world.has(kind)
        newest = sorted(there, key=lambda row: (row["date_created"], row["recid"]), reverse=True)
        listed = await agent.ask(f"get_{many}", size=5, verbosity="summary")
        assert listed.data["count"] == len(there), many
        assert listed.ids == [row["jnid"] for row in newest[:5]], many

        record = next(row for row in newest if WORDS[many](row))
        query = WORDS[many](record)
        found = await agent.ask(f"search_{many}", query=query, size=200, verbosity="summary")
        assert record["jnid"] in found.ids, (many, query)
        assert found.data["count"] <= len(there)

        told = await agent.ask(f"get_{one}", **{f"{one}_id": record["jnid"]}, verbosity="raw")
        assert told.data["record"]["jnid"] == record["jnid"], one
        assert "not_found" in await agent.refused(f"get_{one}", **{f"{one}_id": "nosuchrecord000000000000"}), one

    hyphens = next(row["jnid"] for row in world.has("estimates") if "-" in row["jnid"])
    told = await agent.ask("get_estimate", estimate_id=hyphens, fields="source")
    assert told.data["record"] == {"source": "sumoquote"}

    job = next(row["related"][0]["id"] for row in world.has("invoices"))
    for many, kind in KINDS.values():
        if kind in ("products", "contacts"):
            continue
        under = world.ids(kind, lambda row: job in {link["id"] for link in row.get("related", ())})
        assert await ids(agent, f"get_{many}", job_id=job) == under, many


async def test_documents_are_asked_for_by_money_status_and_dates(world: Any, agent: Any) -> None:
    now = world.clock.now()
    owing = world.ids("invoices", lambda row: money(row["due"]) > 0)
    assert owing
    assert await ids(agent, "get_invoices", unpaid=True) == owing
    assert await ids(agent, "get_invoices", unpaid=False) == world.ids("invoices") - owing
    late = world.ids("invoices", lambda row: money(row["due"]) > 0 and 0 < row["date_due"] < now - now % 86_400)
    assert late
    assert await ids(agent, "get_invoices", overdue=True) == late
    for status in {row["status_name"] for row in world.has("invoices")}:
        of_status = world.ids("invoices", lambda row, wanted=status: row["status_name"] == wanted)
        assert await ids(agent, "get_invoices", status=status.upper()) == of_status, status

    paid = next(row for row in world.has("invoices") if row["payments"])
    paying = world.ids("payments", lambda row: paid["jnid"] in {one["invoice_id"] for one in row["invoices"]})
    assert paying
    assert await ids(agent, "get_payments", invoice_id=paid["jnid"]) == paying

    in_use = world.ids("products", lambda row: row["is_active"])
    assert await ids(agent, "get_products", is_active=True) == in_use
    assert await ids(agent, "get_products") == world.ids("products")

    assigned = world.ids("workorders", lambda row: row["status_name"] == "Assigned")
    assert assigned
    assert await ids(agent, "get_work_orders", status="assigned", record_type="install") == assigned


async def test_people_settings_and_units_are_told(world: Any, agent: Any) -> None:
    user = next(row for row in world.users() if not row["is_active"])
    told = await agent.ask("get_user", user_id=user["id"])
    assert told.data["record"]["email"] == user["email"]
    found = await agent.ask("search_users", query=user["email"], active_only=False)
    assert user["id"] in [row["id"] for row in found.rows]

    settings = (await agent.ask("get_settings")).data
    assert [flow["name"] for flow in settings["workflows"]["job"]] == ["Roofing", "Repair"]
    assert settings["workflows"]["job"][0]["statuses"][4] == {"id": 355, "name": "In Production"}
    assert "Commercial" not in [flow["name"] for flow in settings["workflows"]["contact"]]
    assert {source["name"] for source in settings["sources"]} >= {"Referral", "Storm"}
    assert all(person["name"] for group in settings["groups"] for person in group["members"])
    assert "SQ" in (await agent.ask("get_units")).data["units"]
