"""Invoices, payments, budgets, products and material orders of a seeded account.

Drawn after everything else, with chances of their own, so that the records of the other kinds are what they are without
these.
"""

from __future__ import annotations

import random

from jobnimbus_mcp.simulator.dataset import DAY_S, Draft, acting, authored
from jobnimbus_mcp.simulator.ids import seeded_guid
from jobnimbus_mcp.simulator.names import PRODUCTS
from jobnimbus_mcp.simulator.settings_seed import STATUSES
from jobnimbus_mcp.simulator.shapes import BLANK, Record, reference

__all__ = ["seed_money"]

_TERM_S = 30 * DAY_S
_DISCONTINUED = ("3-tab shingle", "25-year, discontinued", "SQ", "material", 290, 160)


def seed_money(draft: Draft, origin: str) -> None:
    """Fill in the kinds that money is about. `origin`: names the account, and so its chances."""
    draft.rng = random.Random(f"{origin}:money")
    _products(draft)
    latest = {estimate["related"][0]["id"]: estimate for estimate in draft.records["estimates"].values()}
    for job in list(draft.records["jobs"].values()):
        estimate, stage = latest.get(job["jnid"]), draft.stages[job["jnid"]]
        if estimate is None:
            continue
        links = [reference(job), job["primary"]]
        if stage >= 2 and draft.rng.random() < 0.35:
            _budget(draft, job, links, estimate, stage)
        if stage >= 3 and draft.rng.random() < 0.4:
            _material_order(draft, job, links, estimate, stage)
        if stage >= 5:
            _invoice(draft, job, links, estimate, stage)
    _soil(draft)


def _products(draft: Draft) -> None:
    for at, (name, description, uom, item_type, price, cost) in enumerate((*PRODUCTS, _DISCONTINUED)):
        is_known = at < len(draft.products)
        priced, unpriced = {"cost": cost, "price": price}, {"cost": 0, "price": 0}
        is_labor = item_type == "labor"
        draft.add(
            "products",
            -800 * DAY_S,
            {
                **({"jnid": draft.products[at]} if is_known else {}),
                **authored(draft.users[0]),
                "name": name,
                "description": description,
                "item_type": item_type,
                "is_active": is_known,
                "uoms": [
                    {
                        "uom": uom,
                        "material": unpriced if is_labor else priced,
                        "labor": priced if is_labor else unpriced,
                    }
                ],
            },
            -200 * DAY_S,
        )


def _invoice(draft: Draft, job: Record, links: list[Record], estimate: Record, stage: int) -> None:
    """A draft for finished work; of what is invoiced some are paid in part, some not at all; the rest are settled."""
    rng = draft.rng
    made_s = job["date_status_change"] - draft.day_s
    status = 1 if stage == 5 else (rng.choice((2, 2, 3)) if stage == 6 else rng.choice((4, 4, 4, 2)))
    dated_s = job["date_status_change"] // DAY_S * DAY_S
    by_bookkeeping = rng.random() < 0.25
    author = {"created_by": "system_qbo", "created_by_name": "QuickBooks"}
    invoice = draft.add(
        "invoices",
        made_s,
        {
            **{name: job[name] for name in ("owners", "sales_rep", "sales_rep_name")},
            **(author if by_bookkeeping else authored(draft.users[6])),
            "number": f"{job['number']}-1",
            "guid": seeded_guid(rng),
            "status": status,
            "status_name": STATUSES["invoices"][status],
            "date_status_change": job["date_status_change"],
            "date_invoice": dated_s,
            "date_due": dated_s + _TERM_S,
            "subtotal": estimate["total"],
            "total": estimate["total"],
            "cost": estimate["cost"],
            "margin": estimate["margin"],
            "items": [{**item, "addMarkupIsExcluded": False} for item in estimate["items"]],
            "related": links,
        },
    )
    if stage < 6:
        return
    if stage == 7:
        shares = [invoice["total"]] if rng.random() < 0.5 else [invoice["total"] // 3, None]
    else:
        shares = [] if rng.random() < 0.4 else [invoice["total"] // 3]
    paid = 0
    for share in shares:
        sum_paid = invoice["total"] - paid if share is None else share
        paid += sum_paid
        made_s = _payment(draft, job, links, invoice, sum_paid, made_s)


def _payment(draft: Draft, job: Record, links: list[Record], invoice: Record, sum_paid: int, after_s: int) -> int:
    """Returns when it came, as an offset from the day."""
    rng = draft.rng
    made_s = draft.later(after_s, 25)
    method = rng.choice((1, 2, 2, 3))
    draft.add(
        "payments",
        made_s,
        {
            **{name: job[name] for name in ("owners", "sales_rep", "sales_rep_name")},
            **authored(draft.users[6]),
            "total": sum_paid,
            "method_id": method,
            "reference": f"CHK {rng.randint(1000, 9999)}" if method == 2 else "",
            "date_payment": draft.day_s + made_s - 600,
            "primary": links[1],
            "related": links,
            "invoices": [
                {
                    "invoice_id": invoice["jnid"],
                    "invoice_no": invoice["number"],
                    "amount": sum_paid,
                    "created_by": draft.users[6].id,
                    "date_created": draft.day_s + made_s,
                    "is_active": True,
                }
            ],
            "transaction_id": f"txn_{rng.getrandbits(48):012x}" if method == 3 else None,
        },
    )
    return made_s


def _budget(draft: Draft, job: Record, links: list[Record], estimate: Record, stage: int) -> None:
    made_s = draft.later(job["date_created"] - draft.day_s, 15)
    revenue, cost = estimate["total"], estimate["cost"]
    commissions = revenue // 10
    gross, net = revenue - cost, revenue - cost - commissions
    status = 2 if stage == 7 else 1
    draft.add(
        "budgets",
        made_s,
        {
            **{name: job[name] for name in ("owners", "sales_rep", "sales_rep_name")},
            **authored(draft.users[0]),
            "number": f"B-{job['number']}",
            "status": status,
            "status_name": STATUSES["budgets"][status],
            "date_budget": (draft.day_s + made_s) // DAY_S * DAY_S,
            "revenue": revenue,
            "total_cost": cost,
            "total_commissions": commissions,
            "gross_profit": gross,
            "gross_margin": round(100 * gross / revenue, 1),
            "net_profit": net,
            "net_margin": round(100 * net / revenue, 1),
            "related": links,
        },
    )


def _material_order(draft: Draft, job: Record, links: list[Record], estimate: Record, stage: int) -> None:
    rng = draft.rng
    made_s = draft.later(job["date_created"] - draft.day_s, 20)
    manager = draft.users[5]
    kept = ("jnid", "name", "description", "uom", "quantity", "price", "cost", "sku", "color", "category", "photos")
    goods = [item for item in estimate["items"] if item["item_type"] != "labor"] or estimate["items"][:1]
    items = [{key: item[key] for key in kept} for item in goods]
    status = 2 if stage >= 5 else rng.choice((0, 1))
    draft.add(
        "materialorders",
        made_s,
        {
            **acting(next(user for user in draft.users if user.id == job["sales_rep"])),
            **authored(manager),
            "owners": [{"id": manager.id}, {"id": job["sales_rep"]}],
            "number": f"MO-{51 + len(draft.records['materialorders'])}",
            "guid": seeded_guid(rng),
            "status": status,
            "status_name": STATUSES["materialorders"][status],
            "date_status_change": draft.day_s + made_s,
            "date_materialorder": (draft.day_s + made_s) // DAY_S * DAY_S,
            "address": {
                "line1": job["address_line1"],
                "line2": job["address_line2"] or "",
                **{key: job[key] for key in ("city", "state_text", "zip", "geo")},
            },
            "supplier": {**BLANK["materialorders"]["supplier"], "po": f"PO-{job['number']}"},
            "items": items,
            "total_line_item_cost": sum(item["quantity"] * item["cost"] for item in items),
            "total_line_item_price": sum(item["quantity"] * item["price"] for item in items),
            "related": links,
        },
    )


def _soil(draft: Draft) -> None:
    """One payment too much, the rest of it given back; one without an author."""
    payments = list(draft.records["payments"].values())
    payments[3].update(total=payments[3]["total"] + 250, refunded_amount=250, refund_id="rfnd_000004")
    payments[7]["created_by_name"] = None
