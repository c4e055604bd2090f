"""/api/v2/"""

from django.urls import include, path

from main.views import router

urlpatterns = [path("api/v2/", include(router.urls))]
