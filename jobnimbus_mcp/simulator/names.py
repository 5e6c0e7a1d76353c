"""Words the seeded accounts are made of: people, places, work. All invented."""

from __future__ import annotations

__all__ = [
    "CALL_NOTES",
    "CARRIERS",
    "COLORS",
    "DESCRIPTIONS",
    "EMAIL_NOTES",
    "FIRST_NAMES",
    "JOB_KINDS",
    "LAST_NAMES",
    "MEETING_NOTES",
    "NOTES",
    "PHOTOS",
    "PRODUCTS",
    "STREETS",
    "TASK_TITLES",
    "TOWNS",
    "TRADES",
]

_FIRST = (
    "Alice Amir Andrea Angela Anton Beatriz Ben Bridget Carla Carlos Cheryl Claire Curtis Dana Daniel Darius "
    "Deborah Derek Diego Donna Elena Eli Emma Erik Evelyn Farah Felix Fiona Frank Gail George Gloria Grant Hannah "
    "Harold Hassan Heather Hugo Ian Imani Irene Isaac Ivan Jack Jasmine Joan Joel Jorge Judith Karen Keith Kenji "
    "Laura Leon Lily Logan Lucia Malik Marcus Maria Martin Megan Miguel Mona Nadia Nathan Nina Noah Olga Omar "
    "Owen Paula Peter Priya Quinn Rachel Ramon Rita Robin Rosa Ruth Sam Sandra Sean Sofia Stella Tara Theo Tina "
    "Victor Wanda Wesley Yara Zoe"
)
FIRST_NAMES = tuple(_FIRST.split())
_LAST = (
    "Abbott Adeyemi Alvarez Andersen Archer Baldwin Barrera Becker Bianchi Blake Bowman Brennan Brooks Byrne "
    "Calloway Carver Castillo Chandra Chen Clarke Coleman Conti Cooper Cruz Dalton Davenport Delgado Dixon "
    "Donovan Duarte Eaton Ellison Espinoza Farrell Ferraro Fischer Fleming Foster Franco Gallagher Garrison Gibbs "
    "Goldberg Graves Griffin Gupta Haas Hadley Hale Hansen Harper Hayes Herrera Hobbs Holloway Hughes Ibarra "
    "Ingram Jennings Jimenez Kaplan Keller Kim Kirby Kowalski Lambert Larkin Leone Lindgren Lowe Lund Maddox "
    "Mancini Marsh Mendez Mercer Moreau Morgan Nakamura Nash Nolan Novak O'Brien Okafor Olsen Ortega Osborne "
    "Parrish Patel Pereira Petrov Pierce Quigley Ramsey Reyes Rhodes Riley Rossi Rowe Salazar Sanders Santoro "
    "Schmidt Shah Shaw Silva Sinclair Slater Soto Stanton Stokes Sutton Tanaka Thorne Tran Turner Underwood "
    "Valdez Vaughn Vega Wagner Walsh Ward Webster Weiss Whitfield Wilkes Winters Wolfe Yates York Zamora Zimmer"
)
LAST_NAMES = tuple(_LAST.split())
STREETS = (
    "Larkspur Ct",
    "Maple Ave",
    "Old Mill Rd",
    "Harbor View Dr",
    "Chestnut Hill Rd",
    "Boston Post Rd",
    "Elm St",
    "Cedar Ln",
    "Long Ridge Rd",
    "Whitfield St",
    "Mulberry Point Rd",
    "Orchard Ter",
    "Summer St",
    "Hope St",
    "Strawberry Hill Ave",
    "Durham Rd",
    "Shore Rd",
    "Flat Rock Rd",
    "Prospect Ave",
    "Meadow Ln",
)
# (town, ZIP, +4, latitude, longitude)
TOWNS = (
    ("Stamford", "06902", "2114", 41.05, -73.55),
    ("Stamford", "06905", "1307", 41.08, -73.54),
    ("Guilford", "06437", "3512", 41.28, -72.68),
    ("Branford", "06405", "0420", 41.28, -72.81),
    ("Madison", "06443", "2208", 41.28, -72.6),
    ("Darien", "06820", "5514", 41.08, -73.47),
    ("Greenwich", "06830", "6003", 41.03, -73.63),
    ("Norwalk", "06851", "1919", 41.13, -73.4),
    ("New Haven", "06511", "4102", 41.31, -72.93),
    ("Westport", "06880", "3344", 41.14, -73.35),
)
TRADES = ("Roofing Crew", "Gutters LLC", "Siding Co", "Exteriors", "Carpentry", "Masonry")
JOB_KINDS = {
    "Roofing": ("Re-roof", "Flat Roof", "Storm Damage", "Roof and Gutters", "Skylights"),
    "Repair": ("Leak Repair", "Chimney Flashing", "Ridge Vent", "Gutter Repair"),
}
DESCRIPTIONS = (
    "32 SQ architectural, two layers to tear off",
    "Hail damage, rear slope",
    "Leak above the kitchen, water stain on the ceiling",
    "Replace gutters and downspouts on the north side",
    "Low-slope section over the garage",
    "Insurance scope to be matched",
    "Homeowner wants ridge vent and new flashing",
    "Wind-lifted shingles near the chimney",
    "",
)
COLORS = ("Charcoal", "Weathered Wood", "Pewter Gray", "Barkwood", "Slate", "Hickory")
CARRIERS = ("Northway Mutual", "Sound Insurance", "Quinnipiac Home")
NOTES = (
    "Left a voicemail about the inspection date.",
    "Homeowner chose the darker shingle; update the order.",
    "Adjuster met on site and agreed to full replacement.",
    "<p>Spoke with the homeowner.<br>Wants the crew to park on the street.</p>",
    "Permit filed with the town.\nExpect an answer within a week.",
    "Deposit received, balance due at completion.",
    "Dog in yard, call before entering.",
    "Decking is soft near the eave; allow for 6 sheets.",
)
CALL_NOTES = ("Called, no answer.", "Called to confirm the appointment.", "Talked about financing options.")
EMAIL_NOTES = ("Sent the proposal by e-mail.", "Sent photos of the damage.", "Asked for the claim paperwork.")
MEETING_NOTES = ("Met at the house and measured the roof.", "Walked the roof with the adjuster.")
TASK_TITLES = {
    "Task": ("Final inspection", "Order materials", "Collect balance", "File permit", "Drop dumpster"),
    "Phone Call": ("Call homeowner", "Call adjuster", "Follow up on estimate"),
    "Appointment": ("Roof inspection", "Sign contract", "Color selection"),
}
PHOTOS = ("roof-before", "roof-after", "hail-damage", "attic", "front-elevation", "flashing")
# (name, description, unit, item type, price, cost)
PRODUCTS = (
    ("Architectural shingle", "30-year laminate", "SQ", "material", 385, 210),
    ("Tear-off and install", "Labor per square", "SQ", "labor", 175, 95),
    ("Ice and water shield", "Eaves and valleys", "SQ", "material", 92, 48),
    ("Ridge vent", "Shingle-over", "LF", "material", 11, 5),
    ("Drip edge", "Aluminum, white", "LF", "material", 4, 2),
    ("Chimney flashing", "Lead, counter-flashed", "EA", "labor+material", 640, 310),
    ("Seamless gutter", "5 inch K-style", "LF", "labor+material", 14, 7),
    ("Plywood sheet", "CDX 1/2 inch", "EA", "material", 85, 44),
)
