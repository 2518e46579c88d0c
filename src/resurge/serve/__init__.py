"""An HTTP server for one model: uploads are checked and decoded by a few threads, and predicted in batches.

    connection.py -> middleware.py (Host, token, headers, counts) -> app.py (routes) -> requests.py (body to files)
    -> decoding.py (files to images) -> batching.py (images to batches) -> predictor -> responses.py

`service.py` ties the last four together and knows whether the model is loaded; `running.py` runs it all.
"""
