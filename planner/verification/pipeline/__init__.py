"""The orders in which pipelines run their passes, and an event simulation of them."""
