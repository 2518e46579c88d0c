"""An HTTP server for one model: uploads are checked and decoded by a few threads, and answered in batches.

    connection (protocol.py) -> gate (gate.py: headers, token, counts) -> routes (app.py)
    -> body to files (uploads.py) -> files to pictures (pictures.py) -> pictures to batches (batching.py) -> predictor

`service.py` ties the last four together and knows whether the model is loaded; `running.py` runs it all.
"""
