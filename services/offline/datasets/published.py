"""What the Fraud Detection Handbook published of its transactions: the names of its features, and its results.

Source: Le Borgne, Siblini, Lebichot, Bontempi, *Reproducible Machine Learning for Credit Card Fraud Detection - Practical
Handbook* (2022), chapters 3 to 5.
"""

from __future__ import annotations

from typing import Final

PUBLISHED: Final = {
    "TX_DURING_WEEKEND": "transaction_is_weekend",
    "TX_DURING_NIGHT": "transaction_is_night",
    "CUSTOMER_ID_NB_TX_1DAY_WINDOW": "card_count_with_current_1d",
    "CUSTOMER_ID_AVG_AMOUNT_1DAY_WINDOW": "card_mean_with_current_1d",
    "CUSTOMER_ID_NB_TX_7DAY_WINDOW": "card_count_with_current_7d",
    "CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW": "card_mean_with_current_7d",
    "CUSTOMER_ID_NB_TX_30DAY_WINDOW": "card_count_with_current_30d",
    "CUSTOMER_ID_AVG_AMOUNT_30DAY_WINDOW": "card_mean_with_current_30d",
    "TERMINAL_ID_NB_TX_1DAY_WINDOW": "terminal_known_count_1d",
    "TERMINAL_ID_RISK_1DAY_WINDOW": "terminal_known_risk_1d",
    "TERMINAL_ID_NB_TX_7DAY_WINDOW": "terminal_known_count_7d",
    "TERMINAL_ID_RISK_7DAY_WINDOW": "terminal_known_risk_7d",
    "TERMINAL_ID_NB_TX_30DAY_WINDOW": "terminal_known_count_30d",
    "TERMINAL_ID_RISK_30DAY_WINDOW": "terminal_known_risk_30d",
}
"""The handbook's column of each feature that it published, and its name here."""
RESULTS: Final = {
    "XGBoost, defaults": (0.862, 0.639, 0.273),
    "XGBoost, best tuned": (0.871, 0.694, 0.304),
}
"""AUC ROC, average precision and CP@100: of one test week, and the mean of four folds."""
