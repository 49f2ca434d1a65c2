"""The report: pictures and one self-contained HTML page. It reads artifacts and computes nothing of its own."""
