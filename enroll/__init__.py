"""The office: the desk that enrols people, and in `roster/` the authority that says who may enter.

A tenancy gives a household its rights (`roster.rights`); the rights become a log per zone
(`roster.log`), signed and announced to the gates (`roster.serve`); their receipts come back
(`roster.receipts`). Start reading at `roster.authority`; where everything lies is `home`.
"""
