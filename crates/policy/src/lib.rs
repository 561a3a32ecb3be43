//! Policy files: parsing, checking and matching requests to budgets.
